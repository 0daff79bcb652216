"""What training needs and inference does not: data lists, random transforms, losses, metrics and Ignite handlers."""
