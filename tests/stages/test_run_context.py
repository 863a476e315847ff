from flows.stages.run_context import RunOptions


def test_stages_that_run_anyway_are_named_or_come_after_one():
    assert RunOptions().anew == set()
    assert RunOptions(refresh=["evaluate"]).anew == {"evaluate"}
    assert RunOptions(from_stage="finetune").anew == {"finetune", "evaluate"}
    assert RunOptions(from_stage="finetune", refresh=["prepare"]).anew == {"prepare", "finetune", "evaluate"}
