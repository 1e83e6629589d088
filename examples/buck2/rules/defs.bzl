"""Small rules of their own, so that the example needs no prelude."""

load("//platforms:defs.bzl", "kiln_executor")

def _c_binary_impl(ctx):
    objects = []
    for src in ctx.attrs.srcs:
        obj = ctx.actions.declare_output(src.basename + ".o")
        ctx.actions.run(
            cmd_args(
                ["/usr/bin/gcc", "-c", "-o", obj.as_output(), src],
                hidden = ctx.attrs.headers,
            ),
            category = "c_compile",
            identifier = src.short_path,
        )
        objects.append(obj)
    out = ctx.actions.declare_output(ctx.label.name)
    ctx.actions.run(
        cmd_args(["/usr/bin/gcc", "-o", out.as_output()], objects),
        category = "c_link",
    )
    return [DefaultInfo(default_output = out), RunInfo(args = cmd_args(out))]

c_binary = rule(
    impl = _c_binary_impl,
    attrs = {
        "headers": attrs.list(attrs.source(), default = []),
        "srcs": attrs.list(attrs.source()),
    },
)

def _shell_output_impl(ctx):
    out = ctx.actions.declare_output(ctx.attrs.out, dir = ctx.attrs.dir)
    ctx.actions.run(
        cmd_args(
            ["/bin/sh", "-eu", "-c", ctx.attrs.cmd, "sh", out.as_output()],
            [dep[RunInfo].args for dep in ctx.attrs.tools],
        ),
        category = "shell",
    )
    return [DefaultInfo(default_output = out)]

# `cmd` is a shell script: $1 is the output, $2 and on are the tools.
shell_output = rule(
    impl = _shell_output_impl,
    attrs = {
        "cmd": attrs.string(),
        "dir": attrs.bool(default = False),
        "out": attrs.string(),
        "tools": attrs.list(attrs.exec_dep(providers = [RunInfo]), default = []),
    },
)

def _shell_test_impl(ctx):
    return [
        DefaultInfo(),
        ExternalRunnerTestInfo(
            type = "custom",
            command = ["/bin/sh", ctx.attrs.src] + [dep[RunInfo].args for dep in ctx.attrs.tools],
            # Tests prefer this machine where they may run on it: so they may not.
            default_executor = kiln_executor(local_enabled = False),
            # What a test needs to run elsewhere: no path of this machine in its command.
            run_from_project_root = True,
            use_project_relative_paths = True,
        ),
    ]

shell_test = rule(
    impl = _shell_test_impl,
    attrs = {
        "src": attrs.source(),
        "tools": attrs.list(attrs.exec_dep(providers = [RunInfo]), default = []),
    },
)
