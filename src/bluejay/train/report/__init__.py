"""What a run tells while it trains: metrics, the live view, generated samples, profiles."""
