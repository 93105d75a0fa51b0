#!/usr/bin/env bash
# Run Python on an emulated computer with AMX, under Debian's Linux: tests/amx/emulated.sh [PYTHON ARGUMENTS...]
#
#   tests/amx/emulated.sh -m pytest -q -p no:cacheprovider tests/kernels/test_int8_amx.py tests/kernels/test_kernels.py -k "amx or bit_for_bit"
#
# BOCHS       the emulator; default: the one in PATH. Its BIOS is looked for in BXSHARE, else in ../share/bochs. Linux wants of the
#             processor what Bochs lacks, so it is built from its sources (github.com/bochs-emu/Bochs at 783b58fd6, folder bochs):
#               patch -p1 <.../tests/amx/bochs.patch && ./configure --prefix=... --with-nogui --enable-x86-64 --enable-avx \
#                 --enable-evex --enable-amx --enable-repeat-speedups --enable-handlers-chaining && make && make install
# AMX_FOLDER  where Debian's kernel, Python and the binary wheels are kept: 500 MB, filled by the first call in a minute.
#
# It needs apt (Debian 12 or what is built of it), pip, xorriso and cpio, no root, and changes nothing outside AMX_FOLDER. The
# repository is copied into the emulated computer as it is; variables NUMBA_* and RWKV_* are passed on. Exit code 69: it cannot be
# had here; 70: the emulated computer stopped. What runs is computed as a Xeon of 2023 computes it, one second in a minute or more;
# how fast it is says nothing.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
folder=${AMX_FOLDER:-${XDG_CACHE_HOME:-$HOME/.cache}/rwkv_engine_amx}
work=$(mktemp -d)
machine=
trap 'kill $machine 2>/dev/null || true; rm -rf "$work"' EXIT
python=3.11
packages="libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1 libgomp1
          python$python libpython$python-minimal libpython$python-stdlib python$python-minimal"
wheels="numba numpy tokenizers safetensors typer pytest hypothesis psutil gguf"

cannot() {
  echo "AMX: not emulated, $1" >&2
  exit 69
}

fill() (
  rm -rf "$folder" && mkdir -p "$folder"/{debs,root/site,kernel,isolinux} && cd "$folder/debs"
  kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2; exit}') && [ -n "$kernel" ] || return 1
  apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$kernel" isolinux syslinux-common $packages || return 1
  dpkg -x linux-image-*.deb "$folder/kernel" && dpkg -x isolinux_*.deb "$folder/isolinux" || return 1
  dpkg -x syslinux-common_*.deb "$folder/isolinux" && rm linux-image-*.deb isolinux_*.deb syslinux-common_*.deb || return 1
  for deb in *.deb; do dpkg -x "$deb" "$folder/root" || return 1; done
  ${PYTHON:-python3} -m pip download --quiet --dest "$folder/wheels" --only-binary=:all: --python-version "${python/./}" \
    --platform manylinux2014_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 $wheels || return 1
  for wheel in "$folder"/wheels/*.whl; do ${PYTHON:-python3} -m zipfile -e "$wheel" "$folder/root/site" || return 1; done
  cd "$folder/root" && find . | cpio --quiet -o -H newc >"$folder/python.img" || return 1
  cp "$folder"/kernel/boot/vmlinuz-* "$folder/vmlinuz"
  cp "$folder"/isolinux/usr/lib/{ISOLINUX/isolinux.bin,syslinux/modules/bios/ldlinux.c32} "$folder"
  rm -rf "$folder"/{debs,root,wheels,kernel,isolinux}
  touch "$folder/ready"
)

bochs=$(command -v "${BOCHS:-bochs}") || cannot "there is no Bochs here: name it in BOCHS"
export BXSHARE=${BXSHARE:-$(dirname "$bochs")/../share/bochs}
[[ $("$bochs" --help cpu 2>&1) == *sapphire_rapids* ]] || cannot "this Bochs knows no Sapphire Rapids"
for tool in apt-get dpkg xorriso cpio; do command -v $tool >/dev/null || cannot "there is no $tool here"; done
if [ ! -e "$folder/ready" ]; then
  fill >"$work/log" 2>&1 || cannot "Debian's packages or the wheels cannot be had here ($(tail -n 1 "$work/log"))"
fi

# what is put over the root file system: the repository, what to run, and the first process
mkdir -p "$work"/{root,cd}
cp "$repository/tests/amx/init.py" "$work/root/init" && chmod +x "$work/root/init"
printf '%s\0' "$@" >"$work/root/arguments"
env -0 | grep -zE '^(NUMBA_|RWKV_)' >"$work/root/environment" || true
mkdir "$work/root/repository"
(cd "$repository" && cp -r rwkv_engine cli weights tests pyproject.toml "$work/root/repository")
(cd "$work/root" && find . -name __pycache__ -prune -o -print | cpio --quiet -o -H newc >"$work/cd/work.img")
cp "$folder"/{vmlinuz,python.img,isolinux.bin,ldlinux.c32} "$work/cd"
cat >"$work/cd/isolinux.cfg" <<'END'
default linux
label linux
  kernel /vmlinuz
  append initrd=/python.img,/work.img console=ttyS0 quiet mitigations=off tsc=reliable clearcpuid=580
END
# 580: fast short copies (FSRM), which Bochs tells of without the fast copies that Linux then takes for granted
xorriso -as mkisofs -quiet -o "$work/cd.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$work/cd" 2>/dev/null

cat >"$work/bochsrc" <<END
megs: 2048
romimage: file="$BXSHARE/BIOS-bochs-latest"
vgaromimage: file="$BXSHARE/VGABIOS-lgpl-latest.bin"
cpu: model=sapphire_rapids, ips=100000000
ata0-master: type=cdrom, path="$work/cd.iso", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev="$work/serial"
display_library: nogui
log: "$work/bochs.log"
END
touch "$work/serial"
"$bochs" -q -f "$work/bochsrc" </dev/null >"$work/console" 2>&1 & machine=$!
tail -f -n +1 --pid=$machine "$work/serial" & show=$!
while kill -0 $machine 2>/dev/null; do
  grep -q "Kernel panic" "$work/serial" && kill $machine
  sleep 1
done
wait $show
code=$(tr -d '\r' <"$work/serial" | sed -n 's/^exit code \([0-9]*\)$/\1/p')
[ -n "$code" ] || { echo "AMX: the emulated computer stopped" >&2 && exit 70; }
exit "$code"
