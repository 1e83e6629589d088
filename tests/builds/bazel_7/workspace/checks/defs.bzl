"""A test that is a script. sh_test asks for a C++ toolchain, and that for repositories on the network."""

def _script_test_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(output = out, target_file = ctx.file.src, is_executable = True)
    return [DefaultInfo(executable = out)]

script_test = rule(
    implementation = _script_test_impl,
    attrs = {"src": attr.label(allow_single_file = True)},
    test = True,
)
