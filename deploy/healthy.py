"""The containers' health check: exit 0 if /health on the port says 200, else 1 with what is not well."""

import json
import sys
import urllib.error
import urllib.request

try:
    urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=4)
except urllib.error.HTTPError as error:
    report = json.load(error)
    ill = [f"{k}: {v.get('detail')}" for k, v in report.items() if isinstance(v, dict) and v.get("ok") is False]
    sys.exit("; ".join(ill) or f"status {error.code}")
except OSError as error:
    sys.exit(f"no answer: {error}")
