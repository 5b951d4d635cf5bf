# make demo: the main job, in virtual machines. make test: the tests that fit into an hour. Both install what they need (Debian, as root);
# Rust, by rustup, is the one thing that must be there.
TARGET := x86_64-unknown-linux-musl
LAB := target/release/lab

.PHONY: demo test test-all faults bench check others conformance mutants mutant lab-test build lab tools clean

demo: lab
	$(LAB) demo

test: check others conformance mutant lab-test

# What needs no machine: formatting, lints, unit tests.
check: tools
	cargo fmt --check
	cargo clippy --workspace --all-targets --features hasan-fence/others -- -D warnings
	cargo test --workspace

# fence_smartplug against what other people wrote: simulators, servers, a schema.
others: tools
	folder=$$(fence/tests/others/install.sh) && HASAN_OTHERS=$$folder cargo test -p hasan-fence --features others --test others

# The tools that other people wrote for agents, of Debian 12 and 13.
conformance: build
	cargo run -p hasan-conformance

# The same with programs that are broken on purpose: the right tool has to see it.
mutants: tools
	tests/conformance/mutants.sh

# One of them, by a seed.
mutant: conformance
	tests/conformance/mutants.sh one

# Real machines: Debian 12; and all there is on Debian 12 and 13, which takes hours.
lab-test: lab
	$(LAB) test

test-all: check others conformance mutants lab
	$(LAB) test --all
	$(LAB) --release trixie test --all

# All that fails in the field, which takes hours.
faults: lab
	$(LAB) test --faults
	$(LAB) --release trixie test --faults

# Measurements, which pass or fail nothing.
bench: lab
	$(LAB) bench

# The programs, static; and the lab, which is one of them.
build: tools
	cargo build --release --target $(TARGET) --workspace --exclude hasan-conformance

lab: build
	mkdir -p target/release && ln -sf ../$(TARGET)/release/lab $(LAB)

# A linker for the build, and the target for static programs.
tools:
	command -v cc >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends gcc libc6-dev; }
	rustup target list --installed | grep -q $(TARGET) || rustup target add $(TARGET)

clean:
	cargo clean
