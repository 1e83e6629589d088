"""A test that is a script: no rules of others are needed, whatever the version of Bazel."""

def _script_test_impl(ctx):
    runner = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.expand_template(
        template = ctx.file.script,
        output = runner,
        substitutions = {},
        is_executable = True,
    )
    return [DefaultInfo(
        executable = runner,
        runfiles = ctx.runfiles(files = ctx.files.data),
    )]

script_test = rule(
    implementation = _script_test_impl,
    attrs = {
        "script": attr.label(allow_single_file = True, mandatory = True),
        "data": attr.label_list(allow_files = True),
    },
    test = True,
)
