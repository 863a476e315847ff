from flows.training.config import FinetuneConfig, LoraSection, PretrainConfig, missing_packages, problems


def test_what_is_not_installed_and_what_diverges_is_told_at_once():
    section = FinetuneConfig(
        report_to="wandb", attention="flash_attention_2", lora=LoraSection(rslora=True, r=4, alpha=64)
    )
    found = missing_packages(section, "finetune") + problems(section, "finetune")
    assert [line.split(":")[0] for line in found] == ["finetune.report_to", "finetune.attention", "finetune.lora.alpha"]
    assert problems(FinetuneConfig(), "finetune") == []
    assert missing_packages(PretrainConfig(enabled=False, report_to="wandb"), "pretrain") == []
