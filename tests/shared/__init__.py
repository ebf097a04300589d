"""Tests of what every service needs: delivery above all."""
