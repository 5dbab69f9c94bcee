"""What the paper prints and says, as data: Alkhouri, Liang et al., aSeqDIP, NeurIPS 2024."""
