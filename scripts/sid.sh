#!/usr/bin/env bash
# Puts programs of Debian sid into DIRECTORY that run on this system's own libraries: no root, no package of the system is
# touched. What a package depends on is not unpacked, so that only programs serve that need nothing beside the C library.
#
#   scripts/sid.sh DIRECTORY PACKAGE[=VERSION]...      DIRECTORY/usr/bin has them; 1.3.* is any version that begins so
set -euo pipefail
place=$(realpath -m "$1")
shift
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || { echo "$tool is not here" >&2; exit 1; }
done
[ -r "$keyring" ] || { echo "$keyring is not here: install debian-archive-keyring" >&2; exit 1; }
mkdir -p "$(dirname "$place")"
work=$(mktemp -d "$place.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/apt/{lists/partial,cache/archives/partial,debs} "$work/root"
: >"$work/apt/status"
echo "deb [signed-by=$keyring] http://deb.debian.org/debian sid main" >"$work/apt/sources"

# A package manager that knows nothing of the system's packages. A mirror that lags by some weeks serves as well: signatures
# and hashes are checked all the same.
apt() {
  apt-get -qq -o Dir::Etc::SourceList="$work/apt/sources" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o Dir::State::Lists="$work/apt/lists" -o Dir::State::status="$work/apt/status" \
    -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User="$(id -un)" \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
    -o Acquire::Check-Valid-Until=false "$@"
}

apt update
cd "$work/apt/debs"
apt download "$@"
for package in ./*.deb; do
  dpkg-deb --fsys-tarfile "$package" |
    tar -x -C "$work/root" --no-same-owner --exclude=./usr/share/doc --exclude=./usr/share/man
done
cd "$work"
chmod 755 root
rm -rf "$place"
mv root "$place"
