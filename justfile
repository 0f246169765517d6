export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

run := "uv run --locked --no-sync"

# Tests and tools start hundreds of interpreters; where bytecode is not kept, each compiles everything again.
export PYTHONDONTWRITEBYTECODE := ""

peers := "UV_PROJECT_ENVIRONMENT=build/environment/"

# Everything that CI checks
default: check

# Lint, types, import rules, generated code and tests
check: lint types checkgenerate test

# Bring the code into the one format, and mend what lint can mend
format:
    {{ run }} ruff format
    {{ run }} ruff check --fix
    {{ run }} buf format --write

# Lint, format and import rules, changing nothing
lint:
    {{ run }} ruff format --check
    {{ run }} ruff check
    {{ run }} lint-imports

# Strict types over src/
types:
    {{ run }} mypy

# The whole test suite; arguments go to pytest, such as: just test tests/store -k gapless
test *arguments:
    {{ run }} pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 {{ arguments }}

# Measure; figures go to the terminal and to build/*.json
bench: bench-store bench-postgres bench-subjects bench-evaluation bench-check bench-openfeature bench-analysis bench-delivery

# Commits a second and the time to another process, beside plain sqlite3
bench-store:
    {{ run }} python benchmarks/store.py

# Commits a second on PostgreSQL, beside bare inserts
bench-postgres:
    {{ run }} python benchmarks/postgres.py

# Subjects and events into SQLite, and lookups, beside plain sqlite3; at full size: just bench-subjects --full
bench-subjects *arguments:
    {{ run }} python benchmarks/subjects.py {{ arguments }}

# All that the design says of delivery, up to 10 000 watchers: targets, and floors of the same run; about five minutes
bench-delivery *arguments:
    {{ run }} python benchmarks/delivery.py {{ arguments }}

# Clients that stop reading: what they cost, when they are ended, and what others notice
bench-stalled:
    {{ run }} python benchmarks/delivery.py --watchers 300 --stalled 200 --changes 40

# 10 000 watchers on one node for ten minutes, with five changes a second; arguments such as: just bench-soak 60
bench-soak seconds="600":
    {{ run }} python benchmarks/delivery.py --watchers 10000 --soak {{ seconds }} --rate 5

# Reads beside rules by hand and other SDKs, which are installed below build/; those that cannot be are named
bench-evaluation *arguments:
    -{{ peers }}peers uv sync --quiet --locked --only-group peers
    -{{ peers }}peers-pydantic1 uv sync --quiet --locked --only-group peers-pydantic1
    {{ run }} python benchmarks/evaluation.py --peers-python build/environment/peers/bin/python \
        --peers-python build/environment/peers-pydantic1/bin/python {{ arguments }}

# Checks for a company and a user beside schematichq's own engine, and what tracking costs with the server away
bench-check:
    -{{ peers }}peers uv sync --quiet --locked --only-group peers
    {{ run }} python benchmarks/check.py --peers-python build/environment/peers/bin/python

# The provider of OpenFeature beside those of its SDK, and beside bare evaluation
bench-openfeature:
    {{ run }} python benchmarks/openfeature_provider.py

# The analysis of rule sets of 200 rules
bench-analysis:
    {{ run }} python benchmarks/analysis.py

# The property tests with many examples: about half an hour
nightly:
    RHEOSTAT_THOROUGH=10 {{ run }} pytest -n 2 --timeout 0 -m hypothesis --ignore tests/evaluation
    RHEOSTAT_THOROUGH=4 RHEOSTAT_COMPILE_EXAMPLES=100000 RHEOSTAT_NIGHTLY_SETS=10000 {{ run }} pytest -n 2 --timeout 0 tests/evaluation

# PostgreSQL killed again and again under four writers and two watchers: two minutes for a hundred times
kill-postgres times="100":
    RHEOSTAT_POSTGRES_KILLS={{ times }} {{ run }} pytest --timeout 0 tests/store/test_postgres_kill.py -k loses_nothing

# The watch protocol in simulated worlds, on two processors: just simulate 100000
simulate seeds="2000" first="0":
    {{ run }} python -m tests.simulation --seeds {{ seeds }} --first {{ first }}

# Remove what is generated outside of gen/
clean:
    rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Check the style of the proto files
lint-proto:
    {{ run }} buf lint
    {{ run }} buf format --diff --exit-code

# Generate everything under gen/ from proto/
generate:
    {{ run }} python tools/generate.py

# Write docs/reference/api from the docstrings
api:
    {{ run }} python tools/api.py

# Fail, naming the files, when gen/ is not what proto/ generates, or breaks the released contract
checkgenerate: lint-proto
    {{ run }} python tools/generate.py --check
    {{ run }} buf breaking proto --against gen/released.binpb

# Make the present contract the one that `checkgenerate` holds later ones against
release-proto:
    {{ run }} buf build proto --as-file-descriptor-set --exclude-source-info -o gen/released.binpb
