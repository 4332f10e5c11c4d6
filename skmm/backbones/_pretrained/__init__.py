"""What a pretrained checkpoint needs: its files and their digest, how it is loaded and cut."""
