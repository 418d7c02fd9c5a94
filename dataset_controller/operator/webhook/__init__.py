"""The admission webhook: refuses what servers without CEL would store."""
