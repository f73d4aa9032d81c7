import json


def flatten(things):
    inner = json.dumps(things).replace("[", "").replace("]", "")
    parts = [part.strip() for part in inner.split(",")]
    return json.loads("[" + ", ".join(part for part in parts if part) + "]")
