"""The one client of OpenAI-compatible endpoints: one request, many with resume, and a short load run."""
