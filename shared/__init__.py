"""What every service needs and none of them owns."""
