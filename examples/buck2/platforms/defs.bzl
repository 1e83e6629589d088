"""The execution platform: every action runs on Kiln."""

def _kiln_platform_impl(ctx):
    platform = ExecutionPlatformInfo(
        label = ctx.label.raw_target(),
        configuration = ConfigurationInfo(constraints = {}, values = {}),
        executor_config = CommandExecutorConfig(
            local_enabled = True,
            remote_enabled = True,
            remote_cache_enabled = True,
            # Kiln's workers match these properties: see `kiln status`.
            remote_execution_properties = {"OSFamily": "linux"},
            remote_execution_use_case = "buck2-default",
            remote_output_paths = "output_paths",
            # A local run is a fallback for what must run here, not a race.
            use_limited_hybrid = True,
        ),
    )
    return [DefaultInfo(), ExecutionPlatformRegistrationInfo(platforms = [platform])]

kiln_platform = rule(impl = _kiln_platform_impl, attrs = {})
