"""Serving a model folder: start, check, ask and stop an endpoint on this machine.

To add a variant (what runs): a file in `variants/` with `launch(config, model_dir, port) -> Launch`, its name in
`ServeConfig.variant` and a line in `registry.py`. To add a runtime (where it runs): a file in `runtimes/` with the
functions of `registry.Runtime` and a line in `registry.py`.
"""
