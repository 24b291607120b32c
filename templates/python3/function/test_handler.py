import json
import unittest
from types import SimpleNamespace

from handler import handle


class Greeting(unittest.TestCase):
    def test_greets_whom_the_query_names(self):
        event = SimpleNamespace(method="GET", path="/", query={"name": "Ada"}, headers={}, body=b"hi")
        answer = handle(event, SimpleNamespace(hostname="test"))
        self.assertEqual(answer["statusCode"], 200)
        self.assertEqual(json.loads(answer["body"]), {"greeting": "Hello, Ada", "received": "hi"})


if __name__ == "__main__":
    unittest.main()
