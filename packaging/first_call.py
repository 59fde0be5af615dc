"""What install.sh --demo prints: the new key, once, and two calls to paste. Reads `aigw keys create --json` from stdin."""

from __future__ import annotations

import json
import sys

TEXT = """
Your key (shown only now): {key}

  curl {url}/chat/completions -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' -d '{{"model": "demo", "messages": [{{"role": "user", "content": "Hello"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}", api_key="{key}")
  answer = client.chat.completions.create(model="demo", messages=[{{"role": "user", "content": "Hello"}}])
  print(answer.choices[0].message.content)
"""

if __name__ == "__main__":
    print(TEXT.format(key=json.load(sys.stdin)["key"], url=f"http://127.0.0.1:{sys.argv[1]}/v1"), flush=True)
