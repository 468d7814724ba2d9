# The image: one static binary from scratch.
#
#   docker build -t wssgate:0.1.0 .
#
# With a binary that was built elsewhere: put it into a folder DIR and its licence beside it, and build with
# `--build-context build=DIR`, which takes the place of the stage `build`.

FROM docker.io/library/rust:1.98.0-slim-bookworm@sha256:1469a27c125cb5a3aebfa4f4e4665d935b02fb72cc093b2c974b3d740e43f157 AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*
# The binary names the crates that it was built from (section .dep-v0), which scanners of images read.
RUN cargo install cargo-auditable --locked --version 0.7.7
WORKDIR /source
COPY . .
# Packed relocations are 0.7 MB less. --target: without it, build scripts and macros would be linked statically too, which macros cannot be.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" cargo auditable build --locked --profile image --target "$target" --bin wssgate \
 && cp "target/$target/image/wssgate" LICENSE / \
 && objdump --section-headers /wssgate | grep -qF .dep-v0 \
 && test "$(stat -c %s /wssgate)" -lt 25000000

FROM scratch
COPY --from=build --chmod=0555 /wssgate /wssgate
COPY --from=build --chmod=0444 /LICENSE /LICENSE
# Nobody of any node; the chart says the same.
USER 65532:65532
EXPOSE 8443 8080 9900
ENTRYPOINT ["/wssgate"]
