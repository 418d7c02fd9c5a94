"""What runs in the pods of a namespace: the agent, which has its datasets' credentials, and the jobs of loads.

`engine` and what it stands on know no Kubernetes; `running` and `loads` do.
"""
