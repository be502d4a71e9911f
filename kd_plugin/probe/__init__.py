"""What can this discriminator learn from this teacher about these images?"""
