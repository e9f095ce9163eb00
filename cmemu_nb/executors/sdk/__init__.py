"""The adapter to the official Python SDK: functions, types and output as the SDK handles them."""
