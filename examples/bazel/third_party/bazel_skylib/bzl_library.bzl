"""What Bazel 7's Java toolchains load: rules for documentation, which no build of this example needs."""

def bzl_library(**_kwargs):
    pass
