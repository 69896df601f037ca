export function ImagePreview() {
  return null;
}

ImagePreview.shouldRender = () => false;
