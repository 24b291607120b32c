import json


def handle(event, context):
    """Called once for every request.

    event has method, path, query, headers and body (bytes); the answer is a dictionary with statusCode, headers and
    body, of which each may be missing.
    """
    name = event.query.get("name", "world")
    return {
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps({"greeting": f"Hello, {name}", "received": event.body.decode()}),
    }
