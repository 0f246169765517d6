#!/usr/bin/env bash
# The JSON form with curl alone: evaluate a setting, change it, read it back. Usage: ./evaluate.sh [URL]
set -euo pipefail
url=${1:-http://127.0.0.1:7420}

call() {
  curl --silent --show-error --fail-with-body "$url/rheo.v1.$1" -H 'content-type: application/json' --data "$2"
  echo
}

# What is it for a paying customer in the EU, and why?
call ConfigService/Evaluate '{
  "project": "shop", "environment": "production", "name": "checkout.timeout",
  "attributes": {"region": "eu", "user": {"plan": "plus"}}, "explain": true}'

# Change the environment's value. The request id makes it safe to send again.
call AdminService/Commit '{
  "project": "shop", "environment": "production", "message": "The bank is slow", "requestId": "evaluate-sh-1",
  "mutations": [{"setValue": {"name": "checkout.timeout", "value": {"doubleValue": 3.5}}}]}'

# Reads without personal data are plain GETs.
curl --silent --show-error --fail-with-body --get "$url/rheo.v1.AdminService/GetSetting" \
  --data-urlencode connect=v1 --data-urlencode encoding=json \
  --data-urlencode 'message={"project": "shop", "environment": "production", "name": "checkout.timeout"}'
echo
