"""Actions whose tool may stay between them."""

def _capitals_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    flags = ctx.actions.args()
    flags.use_param_file("@%s", use_always = True)
    flags.set_param_file_format("multiline")
    flags.add(ctx.file.src)
    flags.add(out)
    startup = ctx.actions.args()
    if ctx.attr.protocol == "proto":
        startup.add("--proto")
    ctx.actions.run(
        executable = ctx.executable._tool,
        tools = [ctx.executable._tool],
        inputs = [ctx.file.src],
        outputs = [out],
        arguments = [startup, flags],
        mnemonic = "Capitals",
        execution_requirements = {
            "supports-workers": "1",
            "requires-worker-protocol": ctx.attr.protocol,
        },
    )
    return [DefaultInfo(files = depset([out]))]

capitals = rule(
    implementation = _capitals_impl,
    attrs = {
        "src": attr.label(allow_single_file = True),
        "protocol": attr.string(),
        "_tool": attr.label(
            default = "//tools:tool.py",
            allow_single_file = True,
            executable = True,
            cfg = "exec",
        ),
    },
)
