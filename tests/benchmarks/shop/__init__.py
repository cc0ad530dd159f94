"""The application that gunicorn serves: one view, the same in Flask and in Django."""
