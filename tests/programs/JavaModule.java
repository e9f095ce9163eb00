// A compute module in Java without any library, which sends its requests as the Java SDK does: `java JavaModule.java new`
// as its newest version, and `old` as version 0.1.0. It reads only the few members of a job that it needs.
import java.io.ByteArrayInputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class JavaModule {
    static final HttpClient client = HttpClient.newBuilder().build();
    static final String FIXED = "http://127.0.0.1:" + System.getenv().getOrDefault("FIXED_PORT", "8946");
    static final String ADD = "[{\"functionName\": \"add\", \"inputs\": ["
            + "{\"name\": \"x\", \"required\": true, \"constraints\": [], \"dataType\": {\"type\": \"integer\", \"integer\": {}}}], "
            + "\"output\": {\"type\": \"single\", \"single\": {\"dataType\": {\"type\": \"integer\", \"integer\": {}}}}, \"issues\": []}]";
    static boolean old;

    public static void main(String[] arguments) throws Exception {
        old = arguments[0].equals("old");
        if (!old) {
            HttpResponse<String> restart = post(FIXED + "/restart-notify", BodyPublishers.ofString(""));
            System.out.println("restart: " + restart.statusCode() + " " + restart.body());
            post(System.getenv("POST_SCHEMA_URI_V2"), BodyPublishers.ofString(ADD));
        }
        String url = old ? FIXED + "/job" : System.getenv("GET_JOB_URI_V2");
        HttpRequest poll = request(url).build();
        while (true) {
            HttpResponse<String> response = client.send(poll, BodyHandlers.ofString());
            if (response.statusCode() == 200) {
                new Thread(() -> run(response.body())).start();
            } else if (response.statusCode() != 204) {
                System.out.println("poll: " + response.statusCode());
                Thread.sleep(1000);
            }
        }
    }

    static HttpRequest.Builder request(String url) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder().uri(URI.create(url));
        if (old) {
            request.header("Module-Auth-Token", Files.readString(Path.of(System.getenv("MODULE_AUTH_TOKEN"))));
        }
        return request;
    }

    static HttpResponse<String> post(String url, BodyPublisher body) throws Exception {
        HttpRequest request = request(url).header("Content-Type", "application/octet-stream").POST(body).build();
        return client.send(request, BodyHandlers.ofString());
    }

    static void run(String job) {
        String id = member(job, "jobId", "\"([^\"]*)\"");
        byte[] result;
        try {
            result = call(member(job, "queryType", "\"([^\"]*)\""), job).getBytes("UTF-8");
        } catch (Exception error) {
            StringWriter text = new StringWriter();
            error.printStackTrace(new PrintWriter(text, true));
            result = ("JobId: " + id + System.lineSeparator() + text).getBytes();
        }
        try {
            // A stream of unknown length is sent in chunks.
            BodyPublisher body = old ? stream(result) : BodyPublishers.ofByteArray(result);
            String url = old ? FIXED + "/results" : System.getenv("POST_RESULT_URI_V2");
            System.out.println("result: " + post(url + "/" + id, body).statusCode());
        } catch (Exception error) {
            error.printStackTrace();
        }
    }

    static BodyPublisher stream(byte[] result) {
        return BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(result));
    }

    static String call(String function, String job) {
        if (function.equals("add")) {
            return "" + (1 + Integer.parseInt(member(job, "x", "(-?\\d+)")));
        } else if (function.equals("large")) {
            return "\"" + "x".repeat(Integer.parseInt(member(job, "size", "(\\d+)"))) + "\"";
        }
        throw new IllegalStateException("it failed");
    }

    static String member(String job, String name, String value) {
        Matcher matcher = Pattern.compile("\"" + name + "\":\\s*" + value).matcher(job);
        return matcher.find() ? matcher.group(1) : "";
    }
}
