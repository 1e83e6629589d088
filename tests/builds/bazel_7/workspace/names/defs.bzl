"""Directories whose files have names beyond ASCII, and beyond Latin-1."""

def _tree_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        outputs = [out],
        arguments = [out.path],
        command = "cd \"$1\" && echo a > plain && echo b > naïve && echo c > 語",
        mnemonic = "Tree",
    )
    return [DefaultInfo(files = depset([out]))]

tree = rule(implementation = _tree_impl)

def _list_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.run_shell(
        inputs = ctx.files.srcs,
        outputs = [out],
        arguments = [ctx.files.srcs[0].path, out.path],
        command = "out=$PWD/$2; cd \"$1\" && ls -1 | LC_ALL=C sort > \"$out\"",
        mnemonic = "List",
    )
    return [DefaultInfo(files = depset([out]))]

list = rule(
    implementation = _list_impl,
    attrs = {"srcs": attr.label_list(allow_files = True)},
)
