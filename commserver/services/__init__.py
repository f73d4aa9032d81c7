"""What commserver does: the doors that gateways call, and those who do the work behind them."""
