"""Receiving: records are applied in sequence, once, in one transaction with their effect; what cannot be is parked."""
