"""The execution platform: every action runs on Kiln."""

def kiln_executor(local_enabled):
    """How actions are run.

    Args:
      local_enabled: whether what asks for it (`local_only = True`) may run on this machine.
    """
    return CommandExecutorConfig(
        local_enabled = local_enabled,
        remote_enabled = True,
        remote_cache_enabled = True,
        # Kiln's workers match these properties: see `kiln status`.
        remote_execution_properties = {"OSFamily": "linux"},
        # Required, and not sent to Kiln.
        remote_execution_use_case = "buck2-default",
        remote_output_paths = "output_paths",
        # Otherwise Buck2 runs each action in both places, and the faster one wins.
        use_limited_hybrid = True,
    )

def _kiln_platform_impl(ctx):
    platform = ExecutionPlatformInfo(
        label = ctx.label.raw_target(),
        configuration = ConfigurationInfo(constraints = {}, values = {}),
        executor_config = kiln_executor(local_enabled = True),
    )
    return [DefaultInfo(), ExecutionPlatformRegistrationInfo(platforms = [platform])]

kiln_platform = rule(impl = _kiln_platform_impl, attrs = {})
