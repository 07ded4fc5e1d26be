# The commands of every day. Each is one line that works without `just`, too.

# Lists the recipes.
default:
    @just --list

# Starts the service, embedded, with its data in ./data.
run *ARGUMENTS:
    cargo run --release -- {{ARGUMENTS}}

# Runs the operators' command line on the same data.
ipctl *ARGUMENTS:
    cargo run --release --quiet --package ipwarden-ipctl -- {{ARGUMENTS}}

# Runs every test on a private PostgreSQL and Redis; arguments go to `cargo test`.
test *ARGUMENTS:
    bash .ci/test {{ARGUMENTS}}

# What breaks, measured in the long form, into docs/RELIABILITY.md; hours.
reliability:
    bash .ci/reliability long

# The same in the form that CI runs; minutes.
reliability-short:
    bash .ci/reliability short

# What it costs, beside a bare handler and its peers, into docs/BENCHMARKS.md; `just bench quick` only shows it.
bench *ARGUMENTS:
    bash .ci/bench {{ARGUMENTS}}

# Fuzzes a target for so many seconds; without a target it names them.
fuzz *ARGUMENTS:
    bash .ci/fuzz {{ARGUMENTS}}

# Writes docs/CLI.md from what `ipctl --help` says.
cli:
    IPWARDEN_WRITE_REFERENCE=1 cargo test --quiet --package ipwarden-ipctl --bin ipctl reference

# Formats the code.
format:
    cargo fmt --all

# What the compiler and clippy have to say.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Builds and opens the documentation of the code.
doc:
    cargo doc --no-deps --workspace --open

# All that has to hold before a change lands.
ci:
    bash .ci/run
