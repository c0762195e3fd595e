"""The language-model layer: roles, clients, ledger, budget, call store, prices and the engine on this machine."""
