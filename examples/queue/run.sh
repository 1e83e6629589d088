#!/bin/sh
# A merge queue at work: a repository with 30 branches, good and bad ones, a flaky one, two that conflict and one that
# is pushed again while it waits. Exactly the good ones land.
#
#   examples/queue/run.sh [DIRECTORY]     KILN names the program, `kiln` by default
set -eu

kiln=${KILN:-kiln}
place=${1:-$(mktemp -d "${TMPDIR:-/tmp}/kiln-queue.XXXXXX")}
mkdir -p "$place"
cd "$place"
place=$(pwd)

export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=Somebody GIT_AUTHOR_EMAIL=somebody@example.com
export GIT_COMMITTER_NAME=Somebody GIT_COMMITTER_EMAIL=somebody@example.com

git init --quiet --bare --initial-branch=main app.git
git clone --quiet app.git work 2>/dev/null
cd work

# The check of this repository: no feature may be bad, and the flaky one fails the first time.
cat >check.sh <<'EOF'
#!/bin/sh
for it in features/*; do
  case $(cat "$it") in
    bad) echo "//$it" >>"$KILN_QUEUE_FAILED"; echo "$it is bad"; exit 1 ;;
    flaky) mkdir "$FLAKED" 2>/dev/null && { echo "bad luck"; exit 1; } ;;
  esac
done
exit 0
EOF
mkdir features
echo fine >features/base
echo 0 >shared
git add . && git commit --quiet -m 'Begin' && git push --quiet origin HEAD:refs/heads/main

branch() { # NAME WORD: a branch with a feature
  git checkout --quiet -B "$1" main
  echo "$2" >"features/$1"
  git add . && git commit --quiet -m "Add $1" && git push --quiet --force origin "HEAD:refs/heads/$1"
}

number=0
while [ $number -lt 30 ]; do
  case $number in
    4 | 15 | 23) branch "change-$number" bad ;;
    9) branch "change-$number" flaky ;;
    12 | 13)
      git checkout --quiet -B "change-$number" main
      echo $number >shared
      git commit --quiet -a -m "Change what is shared" && git push --quiet origin "HEAD:refs/heads/change-$number"
      ;;
    *) branch "change-$number" fine ;;
  esac
  number=$((number + 1))
done
cd ..

export FLAKED="$place/flaked" KILN_QUEUE_STATE="$place/queue"
mkdir -p "$KILN_QUEUE_STATE"
number=0
while [ $number -lt 30 ]; do
  "$kiln" queue add --branch "change-$number" >/dev/null
  number=$((number + 1))
done
(cd work && branch change-23 mended)

"$kiln" queue run --repo app.git --check 'sh ./check.sh' --env FLAKED --workers 2 --poll 1s --until-idle
"$kiln" queue list --ended 30

# Exactly: 26 changes with a feature that are good, beside the one from the beginning, and one of the two that conflict.
landed=$(git --git-dir=app.git ls-tree --name-only refs/heads/main features/ | wc -l)
[ "$landed" -eq 27 ] || { echo "$landed features landed, and not 27" >&2; exit 1; }
for bad in change-4 change-15; do
  ! git --git-dir=app.git cat-file -e "refs/heads/main:features/$bad" 2>/dev/null || { echo "$bad landed" >&2; exit 1; }
done
shared=$(git --git-dir=app.git show refs/heads/main:shared)
[ "$shared" = 12 ] || [ "$shared" = 13 ] || { echo "neither of two that conflict landed" >&2; exit 1; }
echo "26 good changes and one of two that conflict have landed, and nothing else"
