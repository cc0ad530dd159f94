"""What makes guardagent at home in web frameworks, logging and monitoring; one module for each."""
