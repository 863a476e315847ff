"""What a platform engineer applies: the local demo, work pools, automations."""
