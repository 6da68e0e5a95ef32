# shellcheck shell=bash
# Sourced by contrib/quickstart and tests/run: finds a Rust that can build upslot, or the Debian packages that provide
# one.

# The rust-version in Cargo.toml.
readonly RUST_MINOR=85

# True if `cargo` and `rustc` work and are new enough. Those of a rustup without a toolchain do not work.
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

# Prints the packages to install, or none if rustup is installed; fails if no package provides Rust. `cargo` is new
# enough in Debian 13; in Debian 12, `cargo-web` is.
rust_packages() {
  if offers_rust cargo && offers_rust rustc; then
    echo cargo rustc
  elif offers_rust cargo-web && offers_rust rustc-web; then
    echo cargo-web rustc-web
  elif ! command -v rustup >/dev/null; then
    apt-cache show rustup >/dev/null 2>&1 && echo rustup
  fi
}

# After the installation of the packages: true if Rust works now. With rustup, installs a toolchain.
rust_becomes_ready() {
  hash -r
  if ! rust_is_there && command -v rustup >/dev/null; then
    echo "Installing the stable Rust toolchain with rustup."
    rustup toolchain install stable --profile minimal || return 1
  fi
  rust_is_there
}
