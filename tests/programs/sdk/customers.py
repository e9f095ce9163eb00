"""Customers of a CRM: a source with credentials and a connection, a resource alias, an OAuth client, a variable."""

import os

from compute_modules.annotations import function
from compute_modules.auth import RefreshingOauthToken
from compute_modules.context import QueryContext
from compute_modules.resources import get_pipeline_resources
from compute_modules.sources_v2 import get_source


@function
def connect(context: QueryContext, event) -> dict[str, str]:
    crm = get_source("Crm")
    return {
        "password": crm.get_secret("password"),
        "the same": str(context.sources["Crm"]["password"] == crm.get_secret("password")),
        "plan": context.source_configs["Crm"]["plan"],
        "url": crm.get_https_connection().url,
        "orders": get_pipeline_resources()["orders"].rid,
        "client": context.CLIENT_ID,
        "level": os.environ["LOG_LEVEL"],
        "user": context.userId,
    }


@function
def fetch(context, event) -> str:
    connection = get_source("Crm").get_https_connection()
    with connection.get_client() as session:
        return session.get(f"{connection.url}/_emulate/health").json()["status"]


@function
def call_back(context, event) -> str:
    import requests

    token = RefreshingOauthToken(os.environ["FOUNDRY_HOSTNAME"], ["api:functions-execute"]).get_token()
    url = f"https://{os.environ['FOUNDRY_URL']}/_emulate/foundry/compute-modules/runtimes"
    return str(requests.get(url, headers={"Authorization": f"Bearer {token}"}).status_code)
