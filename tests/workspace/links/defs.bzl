"""Symbolic links inside a tree artifact."""

def _linked_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        outputs = [out],
        arguments = [out.path],
        command = """
            set -eu
            mkdir -p "$1/real" && cd "$1"
            echo content > real/file
            ln -s real/file to-file
            ln -s real to-dir
        """,
        mnemonic = "Links",
    )
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out]))]

linked = rule(implementation = _linked_impl)
