"""Directories with names that are hard to carry: long and odd."""

def _odd_names_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        outputs = [out],
        arguments = [out.path],
        command = """
            set -eu
            mkdir -p "$1" && cd "$1"
            long=$(printf 'x%.0s' $(seq 200))
            mkdir -p "$long/$long/$long"
            echo deep > "$long/$long/$long/$long"
            echo odd > "spaces and 'quotes' \\"too\\" \\$HOME; #.txt"
            mkdir empty
            printf '' > empty-file
            printf '#!/bin/sh\\necho ran\\n' > tool.sh && chmod 755 tool.sh
        """,
        mnemonic = "OddNames",
    )
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out]))]

odd_names = rule(implementation = _odd_names_impl)

# Files only: Bazel does not send empty directories as inputs.
def _list_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.run_shell(
        inputs = ctx.files.srcs,
        outputs = [out],
        arguments = [ctx.files.srcs[0].path, out.path],
        command = """
            set -eu
            out=$PWD/$2; cd "$1"
            find . -type f | LC_ALL=C sort > "$out"
            find . -type f | LC_ALL=C sort | while read -r f; do sha256sum < "$f" >> "$out"; done
            ./tool.sh >> "$out"
        """,
        mnemonic = "ListTree",
    )
    return [DefaultInfo(files = depset([out]))]

list_tree = rule(
    implementation = _list_impl,
    attrs = {"srcs": attr.label_list(allow_files = True)},
)
