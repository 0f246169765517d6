export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

run := "uv run --locked --no-sync"

# Check the style of the proto files
lint-proto:
    {{ run }} buf lint
    {{ run }} buf format --diff --exit-code

# Generate everything under gen/ from proto/
generate:
    {{ run }} python tools/generate.py

# Fail, naming the files, when gen/ is not what proto/ generates, or breaks the released contract
checkgenerate: lint-proto
    {{ run }} python tools/generate.py --check
    {{ run }} buf breaking proto --against gen/released.binpb

# Make the present contract the one that `checkgenerate` holds later ones against
release-proto:
    {{ run }} buf build proto --as-file-descriptor-set --exclude-source-info -o gen/released.binpb
