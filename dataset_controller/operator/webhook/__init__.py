"""The admission webhooks: refuse what servers without CEL would store, and give pods gates and nodes to prefer."""
