#!/usr/bin/env bash
# Puts Debian sid's bazel-bootstrap (Bazel 7) into DIRECTORY, with all that it runs on but what the system
# has: no root, no package of the system is touched. DIRECTORY/bazel starts it, on the machine's files
# with a /usr and /etc of its own (bubblewrap).
#
#   scripts/bazel-7.sh DIRECTORY
set -euo pipefail
place=$(realpath -m "$1")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=http://deb.debian.org/debian
for tool in apt-get dpkg-deb bwrap; do
  command -v "$tool" >/dev/null || { echo "$tool is not here" >&2; exit 1; }
done
[ -r "$keyring" ] || { echo "$keyring is not here: install debian-archive-keyring" >&2; exit 1; }
mkdir -p "$(dirname "$place")"
work=$(mktemp -d "$place.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/apt/{lists/partial,cache/archives/partial,debs} "$work/root"
: >"$work/apt/status"
echo "deb [signed-by=$keyring] $mirror sid main" >"$work/apt/sources"

# A package manager that knows nothing of the system's packages. A mirror that lags by some weeks serves
# as well: signatures and hashes are checked all the same.
apt() {
  apt-get -qq -o Dir::Etc::SourceList="$work/apt/sources" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o Dir::State::Lists="$work/apt/lists" -o Dir::State::status="$work/apt/status" \
    -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=false \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
    -o Acquire::Check-Valid-Until=false "$@"
}

# Beside Bazel: a shell with the usual programs, the library that its JNI part needs and no package names
# (libblake3), and what makes the locale below.
wanted=(bazel-bootstrap base-files bash coreutils diffutils findutils grep gzip hostname libblake3-0
  libc-bin locales mawk sed tar unzip zip)
# Two thirds of what it depends on serve rules of languages, and the JDK beyond the JRE.
unneeded='^(openjdk-.*-jdk|default-jdk|gcc(-[0-9]+)?(-x86|$)|g[+][+]|cpp|binutils|build-essential|make$|patch$'
unneeded+='|lib(gcc|stdc[+][+])-[0-9]+-dev|lib(asan|tsan|lsan|hwasan|ubsan|itm|gomp|quadmath|cc1|isl|mpfr|mpc)[0-9-]'
unneeded+='|lib(gprofng|ctf|sframe|binutils)|linux-libc-dev|libc6?-dev|dpkg-dev|libdpkg-perl|perl|libperl'
unneeded+='|python3|libpython|tzdata|libjs-|node-|bzip2)'
apt update
apt install --print-uris -y "${wanted[@]}" | awk '/^\x27/ { sub("_.*", "", $2); print $2 }' |
  grep -vE "$unneeded" >"$work/apt/names"
cd "$work/apt/debs"
# shellcheck disable=SC2046 # One word for each package.
apt download $(cat ../names)
unpack='dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --no-same-owner --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale'
printf '%s\n' ./*.deb | xargs -P "$(nproc)" -I{} bash -o pipefail -c "$unpack" unpack {} "$work/root"
cd "$work"
rm -rf apt

# What scripts of the packages would have done.
ln -sf mawk root/usr/bin/awk
cp /etc/passwd /etc/group /etc/hosts root/etc/
[ ! -e /etc/resolv.conf ] || cp /etc/resolv.conf root/etc/
# Java turns names into bytes by the locale, and Bazel asks for this one: without it no name beyond ASCII
# can be opened.
mkdir -p root/usr/lib/locale
bwrap --bind / / --bind "$work/root/usr" /usr -- /usr/bin/localedef -i en_US -f ISO-8859-1 --no-archive \
  /usr/lib/locale/en_US.ISO-8859-1

cat >bazel <<'SCRIPT'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
# Debian's Bazel asks for a JDK, and looks for zstd where it is not.
exec bwrap --bind / / --dev-bind /dev /dev --ro-bind "$here/root/usr" /usr --ro-bind "$here/root/etc" /etc -- \
  /usr/bin/bazel --server_javabase=/usr/lib/jvm/default-java \
  --host_jvm_args=-DZstdNativePath=/usr/lib/x86_64-linux-gnu/libzstd-jni.so.1 "$@"
SCRIPT
chmod 755 bazel
bwrap --bind / / --ro-bind root/usr /usr --ro-bind root/etc /etc -- \
  /usr/lib/jvm/default-java/bin/java -version
chmod 755 "$work"
rm -rf "$place"
mv "$work" "$place"
trap - EXIT
