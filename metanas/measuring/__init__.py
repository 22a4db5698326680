"""What an architecture is judged by: accuracy on shared weights or trained alone, proxies, scores, cost, latency."""
