"""Programs to try and to start from; the tests run them on real servers, and in a real browser."""
