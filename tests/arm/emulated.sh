#!/usr/bin/env bash
# Run Python on an emulated ARM computer (AArch64; qemu in user mode): tests/arm/emulated.sh [PYTHON ARGUMENTS...]
#
#   NUMBA_CPU_NAME=cortex-a76 tests/arm/emulated.sh -m pytest -q tests/kernels/test_kernels.py -k int8
#
# ARM_CPU         the processor that is emulated: cortex-a72 (a Raspberry Pi 4), cortex-a76 (a Raspberry Pi 5) ...; default cortex-a76.
# NUMBA_CPU_NAME  the processor that kernels are compiled for; without it plain ARMv8, because nothing can be found out under qemu.
# ARM_FOLDER      where qemu, Debian's Python for arm64 and the binary wheels are kept: 600 MB, filled by the first call in a minute.
#
# It needs apt (Debian 12 or what is built of it) and pip, no root, and changes nothing outside ARM_FOLDER. Exit code 69: it cannot
# be had here. What runs is computed as an ARM processor computes it; how fast it is says nothing.
set -euo pipefail

folder=${ARM_FOLDER:-${XDG_CACHE_HOME:-$HOME/.cache}/rwkv_engine_arm}
python=3.11
packages="libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1 libgomp1
          python$python libpython$python-minimal libpython$python-stdlib python$python-minimal"
wheels="numba numpy tokenizers safetensors typer platformdirs pytest hypothesis psutil gguf"

fill() (
  command -v apt-get && command -v dpkg || return 1
  rm -rf "$folder" && mkdir -p "$folder"/{debs,root,site,lists/partial,cache/archives/partial}
  cd "$folder/debs"
  apt() { # with lists and a cache of its own, so that the system's stay as they are
    apt-get -qq -o APT::Architectures::="$(dpkg --print-architecture)" -o APT::Architectures::=arm64 -o APT::Sandbox::User="$(id -un)" \
      -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" "$@"
  }
  apt update && apt download qemu-user-static $(printf '%s:arm64 ' $packages) || return 1
  for deb in *_arm64.deb qemu-user-static_*.deb; do dpkg -x "$deb" "$folder/root" || return 1; done
  ${PYTHON:-python3} -m pip download --quiet --dest "$folder/wheels" --only-binary=:all: --python-version "${python/./}" \
    --platform manylinux2014_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 $wheels || return 1
  for wheel in "$folder"/wheels/*.whl; do ${PYTHON:-python3} -m zipfile -e "$wheel" "$folder/site" || return 1; done
  rm -rf "$folder"/{debs,wheels,lists,cache}
  touch "$folder/ready"
)

if [ ! -e "$folder/ready" ] && ! fill >"${TMPDIR:-/tmp}/rwkv-arm-$$.log" 2>&1; then
  echo "AArch64: not emulated, qemu or Debian's arm64 packages cannot be had here ($(tail -n 1 "${TMPDIR:-/tmp}/rwkv-arm-$$.log"))" >&2
  exit 69
fi
# the packages under the names that they are installed as, at a place that stays the same, so that what is compiled is found again
repository=$(cd "$(dirname "$0")/../.." && pwd)
names=$folder/names/$(cksum <<<"$repository" | cut -d" " -f1)
mkdir -p "$names"
ln -sfn "$repository/rwkv_engine" "$names/rwkv_engine"
ln -sfn "$repository/cli" "$names/rwkv_engine_cli"
ln -sfn "$repository/weights" "$names/rwkv_engine_weights"
export PYTHONPATH="$names:$folder/site${PYTHONPATH:+:$PYTHONPATH}"
emulated=$folder/root/usr/bin/python-emulated # what sys.executable says, so that tests can start processes of their own
cat >"$emulated.$$" <<END
#!/bin/sh
exec "$folder/root/usr/bin/qemu-aarch64-static" -0 "\$0" -L "$folder/root" -cpu "\${ARM_CPU:-cortex-a76}" "$folder/root/usr/bin/python$python" "\$@"
END
chmod +x "$emulated.$$" && mv "$emulated.$$" "$emulated"
exec "$emulated" "$@"
