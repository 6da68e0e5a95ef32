# shellcheck shell=bash
# Read by contrib/quickstart and tests/run: whether there is a Rust that can build upslot, and which Debian packages
# bring one.

# What Cargo.toml names as rust-version.
readonly RUST_MINOR=85

# True if `cargo` and `rustc` answer and are new enough. A rustup without a toolchain does not answer.
rust_is_there() {
  local tool answer
  for tool in cargo rustc; do
    answer=$("$tool" --version 2>/dev/null) || return 1
    [[ $answer =~ ^[a-z]+\ 1\.([0-9]+)\. ]] || return 1
    [ "${BASH_REMATCH[1]}" -ge "$RUST_MINOR" ] || return 1
  done
}

# True if apt-get could install this package in a version that is new enough.
offers_rust() {
  local version
  version=$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p')
  [ -n "$version" ] && [ "$version" != "(none)" ] && dpkg --compare-versions "$version" ge "1.$RUST_MINOR"
}

# Prints the packages to install, none if rustup is there already; fails if nothing offers a Rust. Debian 13 has a new
# enough `cargo`; Debian 12 has one by the name of `cargo-web`.
rust_packages() {
  if offers_rust cargo && offers_rust rustc; then
    echo cargo rustc
  elif offers_rust cargo-web && offers_rust rustc-web; then
    echo cargo-web rustc-web
  elif ! command -v rustup >/dev/null; then
    apt-cache show rustup >/dev/null 2>&1 && echo rustup
  fi
}

# After the packages are installed: true if there is a Rust now. Where it comes with rustup, a toolchain is fetched.
rust_becomes_ready() {
  hash -r
  if ! rust_is_there && command -v rustup >/dev/null; then
    echo "Installing the stable Rust toolchain with rustup."
    rustup toolchain install stable --profile minimal || return 1
  fi
  rust_is_there
}
