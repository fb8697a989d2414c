"""The web page: `scene` is what the browser draws, `desk` what the server does, `app` the two joined by Gradio."""
